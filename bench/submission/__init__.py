"""Other people's methods: what they send, how it is checked, and how it is run apart from everything that it must not see."""
