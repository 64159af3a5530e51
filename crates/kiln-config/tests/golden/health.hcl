image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "thresholds" {
  image   = image.i
  network = network.n
  health  = { tcp = { port = 80 }, failures = 0, successes = "none", liveness = { failures = -1 } }
}

server "ways" {
  image   = image.i
  network = network.n
  health  = { tcp = { port = 80 }, grpc = { port = 81 } }
}

server "liveness" {
  image   = image.i
  network = network.n
  health  = { tcp = { port = 80 }, liveness = { log = { contains = "alive" } } }
}

server "inherited" {
  image   = image.i
  network = network.n
  health  = { log = { contains = "ready" }, liveness = { failures = 5 } }
}

server "startup" {
  image   = image.i
  network = network.n
  health  = { tcp = { port = 80 }, startup = { deadline = "30s" } }
}

server "lines" {
  image   = image.i
  network = network.n
  health  = { log = { matches = "ready (in" }, startup = { log = {} } }
}

server "both" {
  image   = image.i
  network = network.n
  health  = { log = { contains = "a", matches = "b" }, startup = { log = { contains = "" } } }
}

server "grpc" {
  image   = image.i
  network = network.n
  health  = { grpc = { port = 80, service = "shop orders" }, replace_after = "soon" }
}
