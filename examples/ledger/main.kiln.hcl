# A PostgreSQL with a standby and backups, for clients on this machine:
#
#   kiln --stack examples/ledger apply
#   psql "host=127.0.0.1 port=5433 user=ledger dbname=ledger"     # the password: see `password` below
#
# Then change something (`--var work_mem=16MB`) while a client writes: it waits for a moment, and is told
# of no error.

variable "work_mem" {
  description = "Memory of each sort of a query."
  default     = "8MB"
}

variable "password" {
  description = "The password of the one user."
  default     = "change me"
  sensitive   = true
}

network "back" {
  cidr = "10.70.0.0/24"
}

secret "ledger" {
  value = var.password
}

database "ledger" {
  engine   = "postgres"
  version  = "15"
  network  = network.back
  password = secret.ledger
  memory   = "256MiB"
  size     = "1GiB"
  settings = { work_mem = var.work_mem }
  replicas = 1
  backup   = { every = "1h", keep = "7d" }
}

endpoint "ledger" {
  listen = "127.0.0.1:5433"
  to     = database.ledger
}

output "address" {
  value = "host=127.0.0.1 port=5433 user=ledger dbname=ledger"
}
