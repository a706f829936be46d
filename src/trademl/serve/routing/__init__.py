"""One address in front of the servers of several regions: `trademl serve route`."""
