image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
}

secret "key" { generate = 32 }

endpoint "a" {
  listen   = "127.0.0.1:80"
  to       = server.web
  port     = 80
  protocol = "quic"
  tls      = { certificate = "shop.pem", key = secret.key }
  balance  = "fastest"
  limits   = { queue = 5, body = "1 MiB", bodies = 1 }
}

endpoint "b" {
  listen   = "127.0.0.1:81"
  to       = server.web
  port     = 80
  protocol = "tcp"
  route {
    path = "/api/"
    to   = server.web
    port = 81
  }
}

endpoint "c" {
  listen = "127.0.0.1:82"
  to     = server.web
  port   = 80
  tls    = { acme = { email = "a@b.example" } }
  route {
    to   = server.web
    port = 81
  }
  route {
    host = "a.example:80"
    path = "/a/../b"
    to   = server.web
    port = 81
  }
  route {
    prefix = "/x"
    to     = server.web
    port   = 81
  }
}

endpoint "d" {
  listen         = "127.0.0.1:83"
  to             = server.web
  port           = 80
  protocol       = "udp"
  proxy_protocol = true
}

endpoint "e" {
  listen = "127.0.0.1:83"
  to     = server.web
  port   = 80
  route {
    host = "a.example"
    to   = server.web
    port = 81
  }
  route {
    host = "A.example"
    path = "/"
    to   = server.web
    port = 81
  }
}
