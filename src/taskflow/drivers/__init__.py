"""The stores that taskflow comes with, one module each; none knows another."""
