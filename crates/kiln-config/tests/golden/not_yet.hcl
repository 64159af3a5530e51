network "n" { cidr = "10.0.0.0/24" }

image "i" {
  base       = scratch()
  entrypoint = ["/app"]
}

server "web" {
  image   = image.i
  network = network.n
  rollout = { strategy = "canary", steps = [{ weight = 10 }] }
}
