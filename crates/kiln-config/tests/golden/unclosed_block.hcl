server "web" {
  image = image.i

network "n" { cidr = "10.0.0.0/24" }
