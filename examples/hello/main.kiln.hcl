# One web server behind an endpoint.
#
#   kiln --stack examples/hello apply
#   curl http://127.0.0.1:8081/

variable "greeting" {
  default     = "Hello from Kiln"
  description = "What the page says"
}

image "web" {
  base     = debian("bookworm")
  packages = ["nginx-light"]

  copy "site/" { to = "/srv/www" }

  file "/srv/www/index.html" {
    content = templatefile("index.html.tftpl", { greeting = var.greeting })
  }

  file "/etc/nginx/nginx.conf" {
    content = file("nginx.conf")
  }

  entrypoint = ["/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"]
  user       = "www-data"
}

network "front" {
  cidr = "10.50.0.0/24"
}

server "web" {
  image    = image.web
  network  = network.front
  memory   = "64MiB"
  writable = { "/tmp" = "16MiB" }
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "500ms" }
}

endpoint "hello" {
  listen = "127.0.0.1:8081"
  to     = server.web
  port   = 8080
}

output "address" {
  value = endpoint.hello.address
}

output "url" {
  value = endpoint.hello.url
}
