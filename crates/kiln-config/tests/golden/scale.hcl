network "n" { cidr = "10.0.0.0/24" }

image "i" {
  base       = scratch()
  entrypoint = ["/app"]
}

server "turned" {
  image   = image.i
  network = network.n
  scale   = { min = 5, max = 2, target = { requests_per_second = 400 } }
}

server "untold" {
  image   = image.i
  network = network.n
  scale   = { min = 1, max = 2, target = {} }
}

server "aimless" {
  image   = image.i
  network = network.n
  scale   = { min = 1, max = 2 }
}

server "misspelt" {
  image   = image.i
  network = network.n
  scale   = { min = 1, max = 2, target = { request_per_second = 400, cpu = 0.5 }, downafter = "1m" }
}

server "beyond" {
  image    = image.i
  network  = network.n
  replicas = 7
  scale    = { min = 1, max = 5, target = { latency = "200ms" }, tolerance = 3 }
}

server "outside" {
  image    = image.i
  network  = network.n
  replicas = 7
  scale    = { min = 1, max = 5, target = { latency = "200ms" } }
}

server "asked" {
  image   = image.i
  network = network.n
  scale   = { min = 0, max = 0, target = { command = ["queue", "length"], value = 0 } }
}

server "alone" {
  image   = image.i
  network = network.n
  scale   = { min = 0, max = 3, target = { value = 10 } }
}
