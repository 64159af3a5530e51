image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "${server.web.address}/24" }

server "web" {
  image   = image.i
  network = network.n
}
