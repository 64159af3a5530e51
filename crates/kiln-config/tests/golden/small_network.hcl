image "i" {
  base = scratch()
}

network "n" { cidr = "10.0.0.0/28" }

server "web" {
  count   = 10
  image   = image.i
  network = network.n
}
