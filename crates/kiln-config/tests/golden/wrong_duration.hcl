image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  health  = { http = { port = 80 }, every = "5", timeout = 1 }
  rollout = { deadline = "2 minutes" }
  stop    = { signal = "SIGTRM" }
}
