secret "token" { generate = 32 }

variable "key" {
  default   = "k"
  sensitive = true
}

output "a" { value = "token: ${secret.token}" }
output "b" { value = { key = var.key } }
output "c" { value = length(secret.token) }
