variable "a" { default = 1 }
variable "a" { default = 2 }
locals {
  x = 1
}
locals {
  x = 2
}
image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

network "n" { cidr = "10.0.1.0/24" }
secret "s" {
  generate = 16
  value    = "x"
}
secret "t" {
}
