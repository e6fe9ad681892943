-- needs: flows passing
-- Ends dead leases, lapses jobs, releases successors. args: limit. Answers the ids of the leases.
-- Reads and writes: all but seq, after and spec.
drain()
local ids = expire(args[1])
stage()
lapse()
release_successors()
done()
forget_seconds()
return encode(ids)
