"""What each command does; `cli` names them."""
