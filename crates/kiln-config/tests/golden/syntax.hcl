server "web" {
  image = image.i
  memory "128MiB"
  env = {
    A = 1
    B 2
  }
  args = ["a" "b"]
  text = "open
  cpu = 0.5,
}
