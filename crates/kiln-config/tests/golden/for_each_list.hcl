image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  for_each = ["a", "b"]
  image    = image.i
  network  = network.n
}

server "api" {
  count    = -1
  image    = image.i
  network  = network.n
  env      = { K = each.key }
}

server "db" {
  image   = image.i
  network = network.n
  env     = { K = each.key }
}
