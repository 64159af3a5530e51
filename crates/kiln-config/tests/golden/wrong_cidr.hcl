network "a" { cidr = "10.0.0.1/24" }
network "b" { cidr = "10.0.0.0/8" }
network "c" { cidr = "10.0.0/24" }
network "d" {
  cidr   = "10.0.0.0/24"
  egress = ["anywhere"]
}
