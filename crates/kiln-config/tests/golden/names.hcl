server "web server" {
}
server {
}
network "a" "b" {
}
stack "x" {
}
port = 80
