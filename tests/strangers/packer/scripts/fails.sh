#!/usr/bin/env bash
# A script that cannot do its work.
echo 'no route to the mirror'
exit 1
