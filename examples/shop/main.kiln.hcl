# A shop: three web servers behind an endpoint, and an API server that they call. Each kind has a
# network of its own; the web servers reach the API and nothing else.
#
#   kiln --stack examples/shop apply
#   curl http://127.0.0.1:8080/
#   kiln --stack examples/shop apply --var release=v2
#   kiln --stack examples/shop rollback

variable "release" {
  type        = string
  default     = "v1"
  description = "What the page and the API say that they are"
}

locals {
  port     = 8080
  nginx    = ["/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"]
  writable = { "/tmp" = "16MiB" }
  health   = { http = { port = local.port, path = "/healthz" }, every = "1s", timeout = "500ms" }
}

network "front" {
  cidr = "10.60.0.0/24"
}

network "back" {
  cidr = "10.60.1.0/24"
}

image "api" {
  base     = debian("bookworm")
  packages = ["nginx-light"]

  file "/etc/nginx/nginx.conf" {
    content = templatefile("templates/nginx.conf.tftpl", {
      server = templatefile("templates/api.conf.tftpl", { port = local.port, release = var.release })
    })
  }

  entrypoint = local.nginx
  user       = "www-data"
}

image "web" {
  base     = debian("bookworm")
  packages = ["nginx-light"]

  file "/srv/www/index.html" {
    content = templatefile("templates/index.html.tftpl", { release = var.release })
  }

  # The API's stable address stays the same whatever instances stand behind it.
  file "/etc/nginx/nginx.conf" {
    content = templatefile("templates/nginx.conf.tftpl", {
      server = templatefile("templates/web.conf.tftpl", {
        port = local.port
        api  = "${server.api.address}:${local.port}"
      })
    })
  }

  entrypoint = local.nginx
  user       = "www-data"
}

server "api" {
  image    = image.api
  network  = network.back
  memory   = "64MiB"
  writable = local.writable
  health   = local.health
  rollout  = { strategy = "rolling", deadline = "1m" }
}

server "web" {
  image    = image.web
  network  = network.front
  memory   = "64MiB"
  replicas = 3
  connects = [server.api]
  writable = local.writable
  health   = local.health
  rollout  = { strategy = "rolling", deadline = "1m" }
}

endpoint "shop" {
  listen = "127.0.0.1:8080"
  to     = server.web
  port   = local.port
}

output "address" {
  value = endpoint.shop.address
}

output "url" {
  value = endpoint.shop.url
}
