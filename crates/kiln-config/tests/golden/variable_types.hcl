variable "a" {
  type    = number
  default = "many"
}

variable "b" {
  type = strnig
}

variable "c" {}

variable "d" {
  default = 1
  validation {
    condition     = var.d > 1
    error_message = "d must be more than 1"
  }
}

variable "e" {
  typ = string
}
