image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  env = {
    A = var.region
    B = local.port
    C = server.wbe.address
    D = server.web.adress
    E = sever.web.address
  }
}
