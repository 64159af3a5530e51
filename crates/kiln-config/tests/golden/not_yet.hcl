image "i" {
  base = oci("registry/name@sha256:0")

  run "make" {
  }

  test "answers" {
  }
}

network "n" { cidr = "10.0.0.0/24" }

server "web" {
  image   = image.i
  network = network.n
  scale   = { min = 1, max = 2 }
  rollout = { strategy = "canary", steps = [{ weight = 10 }] }
}
