"""What is wrong with a data set, all of it at once: what training would refuse, and what it would take and one should know.

`examination` looks at any set that training reads, as training reads it; the rules are those of the readers themselves, asked
for each entry apart.
"""
