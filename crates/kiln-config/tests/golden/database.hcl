image "i" {
  base = scratch()
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  connects = [database.orders]
}

database "orders" {
  engine = "postgres"
}
