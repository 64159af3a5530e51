image "web" {
  base       = scratch()
  entrypoint = ["/web"]
}

network "front" { cidr = "10.0.0.0/24" }

server "way" {
  image   = image.web
  network = network.front
  rollout = { strategy = "canaries" }
}

server "steps" {
  image   = image.web
  network = network.front
  rollout = { strategy = "canary" }
}

server "shrinks" {
  image   = image.web
  network = network.front
  rollout = { strategy = "canary", steps = [{ weight = 50, hold = "1m" }, { weight = 10, hold = "1m" }] }
}

server "late" {
  image   = image.web
  network = network.front
  rollout = { strategy = "canary", steps = [{ weight = 10, hold = "3m" }], deadline = "2m" }
}

server "mixed" {
  image   = image.web
  network = network.front
  rollout = { strategy = "blue_green", surge = 2, steps = [] }
}

server "shares" {
  image   = image.web
  network = network.front
  rollout = { overlap = false }
}

server "judged" {
  image   = image.web
  network = network.front
  rollout = { analysis = { errors = 101, latency = 0.5, check = { http = { port = 80 }, command = ["true"] } } }
}

server "asked" {
  image   = image.web
  network = network.front
  rollout = { surge = 0, analysis = { check = { command = ["true"] } } }
}
