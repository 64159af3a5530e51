//! The first file of a new stack, as `kiln init` writes it.

/// The name of the file.
pub const FILE_NAME: &str = "main.kiln.hcl";

/// Its text: a web server behind an endpoint, which `kiln apply` brings up as it stands.
pub const TEXT: &str = r#"# A web server behind an endpoint. Bring it up with `kiln apply`.

variable "greeting" {
  default     = "Hello from Kiln"
  description = "What the page says"
}

image "web" {
  base     = debian("bookworm")
  packages = ["busybox-static"]

  file "/srv/www/index.html" {
    content = "<h1>${var.greeting}</h1>\n"
  }

  entrypoint = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/srv/www"]
}

network "front" {
  cidr = "10.60.0.0/24"
}

server "web" {
  image    = image.web
  network  = network.front
  memory   = "64MiB"
  replicas = 2
  health   = { http = { port = 8080, path = "/" } }
}

endpoint "web" {
  listen = "127.0.0.1:8080"
  to     = server.web
  port   = 8080
}

output "address" {
  value = endpoint.web.url
}
"#;
