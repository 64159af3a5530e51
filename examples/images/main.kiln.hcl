# Five programs as images, each with the tests that admit it: servers and a database from Debian's
# packages, an application in Python, and one in Rust that is compiled in one image and runs in
# another that holds nothing else.
#
#   kiln --stack examples/images image build
#   kiln --stack examples/images image test
#   kiln --stack examples/images image list

# A web server. Debian's package, a page, a configuration; no shell.
image "nginx" {
  base     = debian("bookworm")
  packages = ["nginx-light"]

  file "/etc/nginx/nginx.conf" {
    content = file("nginx.conf")
  }
  file "/srv/www/index.html" {
    content = "<!doctype html>\n<title>Kiln</title>\n<p>Fired once.\n"
  }

  entrypoint = ["/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"]
  user       = "www-data"
  writable   = { "/tmp" = "16MiB" }

  test "answers" {
    http        = { port = 8080, path = "/", status = 200, contains = "Fired once" }
    port_closed = [22, 80]
    stays_up    = "1s"
  }
  test "configuration" {
    exec = { command = ["/usr/sbin/nginx", "-e", "stderr", "-t"] }
  }
  test "is-small" {
    no_such_file = ["/bin/sh", "/usr/bin/perl", "/usr/bin/apt", "/usr/bin/dpkg"]
    file         = { path = "/etc/nginx/nginx.conf", mode = "0644", owner = "root" }
  }
}

# A database. It makes its cluster where it finds none; its data lasts as long as the instance.
image "postgres" {
  base     = debian("bookworm")
  packages = ["dash", "postgresql-15"]

  file "/usr/local/bin/serve" {
    mode = "0755"
    content = <<-EOT
      #!/bin/sh
      set -eu
      export PATH="/usr/lib/postgresql/15/bin:$PATH"
      [ -s "$PGDATA/PG_VERSION" ] || initdb --auth=trust --encoding=UTF8 --locale=C --no-sync
      exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
    EOT
  }

  env        = { PGDATA = "/var/lib/postgresql/data/cluster" }
  entrypoint = ["/usr/local/bin/serve"]
  user       = "postgres"
  writable = {
    "/tmp"                     = "16MiB"
    "/dev/shm"                 = "64MiB"
    "/var/lib/postgresql/data" = "256MiB"
  }
  directory "/var/lib/postgresql/data" { owner = "postgres" }

  test "answers" {
    tcp          = 5432
    log_contains = "database system is ready to accept connections"
    exec = {
      command  = ["/usr/lib/postgresql/15/bin/psql", "-h", "127.0.0.1", "-At", "-c", "select 6 * 7", "postgres"]
      contains = "42"
    }
    deadline = "60s"
  }
  test "version" {
    exec = { command = ["/usr/lib/postgresql/15/bin/postgres", "--version"], contains = "15." }
  }
}

# A cache.
image "redis" {
  base     = debian("bookworm")
  packages = ["redis-server"]

  entrypoint = ["/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
  user       = "redis"
  workdir    = "/var/lib/redis"

  test "answers" {
    exec        = { command = ["/usr/bin/redis-cli", "ping"], contains = "PONG" }
    port_closed = 22
  }
}

# An application in an interpreted language.
image "python" {
  base     = debian("bookworm")
  packages = ["python3"]
  copy "app/" { to = "/app" }

  entrypoint = ["/usr/bin/python3", "-I", "-B", "/app/main.py"]
  user       = "nobody"

  test "answers" {
    http = [
      { port = 8000, path = "/healthz", status = 200 },
      { port = 8000, path = "/square/12", contains = "144" },
      { port = 8000, path = "/nothing", status = 404 },
    ]
    stays_up = "1s"
  }
}

# A compiler, for the next image only.
image "compiler" {
  base     = debian("bookworm")
  packages = ["gcc", "libc6-dev", "rustc"]

  copy "hello/" { to = "/src" }
  run "compile" {
    command = [
      "/usr/bin/rustc", "--edition=2021", "-C", "opt-level=2", "-C", "strip=symbols",
      "-C", "target-feature=+crt-static", "-o", "/hello", "/src/main.rs",
    ]
  }
}

# The one program, and nothing else.
image "rust" {
  base = scratch()
  copy "/hello" {
    from = image.compiler
    to   = "/hello"
  }

  entrypoint = ["/hello"]
  user       = "65532:65532"

  test "answers" {
    http         = { port = 8000, path = "/", contains = "hello" }
    no_such_file = ["/bin", "/lib", "/usr"]
  }
}
