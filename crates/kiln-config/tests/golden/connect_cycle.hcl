image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "a" {
  image    = image.i
  network  = network.n
  connects = [server.b]
}

server "b" {
  image    = image.i
  network  = network.n
  connects = [server.c]
}

server "c" {
  image    = image.i
  network  = network.n
  connects = [server.a]
}

