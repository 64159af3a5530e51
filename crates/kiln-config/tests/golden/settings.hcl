image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  health  = { htp = { port = 80 }, tcp = {} }
  rollout = { strategy = "fast" }
  stop    = "now"
  env     = ["A=B"]
}
