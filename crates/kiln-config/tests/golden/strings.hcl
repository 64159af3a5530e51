locals {
  a = 'single'
  b = "bad \q escape"
  c = "unfinished ${local.a"
  d = "$${fine} %%{fine}"
  e = <<-EOT
    %{ if true }never closed
  EOT
  f = "shell ${VAR:-x}"
}
