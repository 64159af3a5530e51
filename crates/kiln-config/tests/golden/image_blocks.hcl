stack {
  trust             = ["me", "ed25519:00"]
  require_integrity = "fsverity"
}

image "a" {
  base     = image.b
  packages = ["bash"]
  scripts  = "sandbox"
}

image "b" { base = image.a }

image "c" {
  base    = debian("bookworm")
  pockets = ["securty"]
  keep    = "man"

  repository "PGDG" {
    url        = "apt.example.org"
    suite      = "../stable"
    components = []
    key        = "0xABCD"
  }

  run "compile" { command = [] }
  run { command = ["/bin/true"] }
  group "Web Data" {}

  test "empty" {}
  test "wrong" {
    http         = { path = "healthz" }
    tcp          = 0
    exec         = { command = ["/app"], status = 256 }
    file         = "etc/passwd"
    port_closed  = [22, "ssh"]
    stays_up     = "soon"
    deadline     = "0s"
    log_contain  = "x"
  }
  test "wrong" { tcp = 80 }
}

image "d" { base = oci("https://registry.example/app") }
image "e" { base = oci("registry.example/app@sha256:0") }
image "f" { base = tarball("missing.tar") }
image "g" { base = oci() }
