image "i" {
  base     = debian("stable")
  packages = ["nginx=1.2", "Nginx"]
}

image "j" {
  base     = "debian"
  packages = []
  user     = "Web Data"
  env      = { "A=B" = 1 }
  writable = { "tmp" = "1MiB" }
  copy "missing/" { to = "srv" }
}

image "k" {
  base     = scratch()
  packages = ["bash"]
  workdir  = "srv/../x"
}
