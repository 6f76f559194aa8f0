CASES = {}
def wanted(full, seconds): return []
