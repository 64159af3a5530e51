image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
}

endpoint "a" {
  listen = "127.0.0.1:80"
  to     = server.web
  port   = 80
}

endpoint "b" {
  listen = "127.0.0.1:80"
  to     = server.web
  port   = 80
}
