locals {
  a = uper("x")
  b = upper()
  c = tonumber("x")
  d = 1 + "x"
  e = timestamp()
}
