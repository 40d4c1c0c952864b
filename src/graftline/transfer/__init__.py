"""Transfer strategies: the rules of the field, evidence measured on the data, plans, freezing."""
