"""Where ``execute`` runs.

A lane turns a claimed job into an Outcome and nothing else; it never touches the driver.
Cancelling a lane's call ends the work or says that it could not.
"""
