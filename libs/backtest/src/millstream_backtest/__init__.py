"""What a loop would have done under another policy: the domain code of drift, serving and trainer over the past."""
