image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  health = { http = { port = 80800, path = "healthz" } }
}
