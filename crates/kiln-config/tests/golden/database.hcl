image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  env     = { URL = database.sound.url, OTHER = database.sound.uri }
}

secret "s" { generate = 16 }

database "sound" {
  engine   = "postgres"
  version  = "15"
  network  = network.n
  password = secret.s
}

database "orders" {
  engine   = "mysql"
  version  = "15.3"
  network  = network.n
  password = "open sesame"
  settings = { listen_addresses = "*" }
  user     = "Orders"
  database = "postgres"
  backup   = { evry = "15m" }
}

database "sixteen" {
  engine   = "postgres"
  version  = "16"
  network  = network.n
  password = secret.s
}

database "alone" {
  engine      = "postgres"
  version     = "17"
  network     = network.n
  password    = secret.s
  synchronous = true
}

endpoint "db" {
  listen = "127.0.0.1:5432"
  to     = database.sound
  port   = 5432
}

endpoint "web" {
  listen = "127.0.0.1:8080"
  to     = server.web
}

database "kept" {
  engine   = "postgres"
  version  = "15"
  network  = network.n
  password = secret.s
  backup   = { every = "1d", keep = "1h" }
}

database "near" {
  engine   = "postgres"
  version  = "15"
  network  = network.n
  password = secret.s
  backup   = { every = "often", to = "backups", encrypt = "open sesame" }
}

database "stray" {
  engine   = "postgres"
  version  = "15"
  network  = network.n
  password = secret.s
  backup   = { to = "/srv/backups", region = "eu-central-1" }
}

database "far" {
  engine   = "postgres"
  version  = "15"
  network  = network.n
  password = secret.s
  backup   = { to = "s3://Bucket", endpoint = "s3.example.com", secret_key = "open sesame" }
}
