secret "token" { generate = 32 }

image "i" {
  base = scratch()
  file "/token" { content = secret.token }
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  workdir = "/${secret.token}"
  env     = { URL = urlencode(secret.token) }
}
