image "i" {
  base = scratch()
}

network "n" { cidr = "${server.web.address}/24" }

server "web" {
  image   = image.i
  network = network.n
}
