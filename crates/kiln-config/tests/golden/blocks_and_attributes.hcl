image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  health {
    every = "1s"
  }
  entrypoint = ["x"]
}
image "j" {
  base = scratch()
  copy = "site/"
  symlink "relative" { target = "x" }
  file {
    content = "x"
  }
  directory "/x" { mode = 755 }
}
