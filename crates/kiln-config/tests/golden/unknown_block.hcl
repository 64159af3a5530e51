severs "web" {
}

resource "aws_instance" "a" {
}
