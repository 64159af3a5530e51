image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image = image.i
}

endpoint "e" {
}
