"""Starts moto as an AWS that checks signatures and permissions, with one Auto Scaling group and three users.

    aws.py REGION

Prints one line of JSON once it listens: its address, and for each user an access key. Ends when its input does.
"""

import json
import os
import sys

# Everything is allowed until the group and the users are there.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000"
for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    os.environ[name] = "setup"

import boto3
import requests
from moto.server import ThreadedMotoServer

MAY = {
    "actor": ["autoscaling:DescribeAutoScalingGroups", "autoscaling:SetDesiredCapacity"],
    "reader": ["autoscaling:DescribeAutoScalingGroups"],
    "nobody": ["s3:ListBucket"],
}


def main(region):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = lambda service: boto3.client(service, region_name=region, endpoint_url=address)
    scaling, iam = client("autoscaling"), client("iam")
    scaling.create_launch_configuration(
        LaunchConfigurationName="web", ImageId="ami-12c6146b", InstanceType="t2.micro"
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="web", LaunchConfigurationName="web", MinSize=1, MaxSize=6, DesiredCapacity=2,
        AvailabilityZones=[region + "a"],
    )
    keys = {}
    for user, actions in MAY.items():
        iam.create_user(UserName=user)
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=user, PolicyName="may", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = [key["AccessKeyId"], key["SecretAccessKey"]]
    requests.post(f"{address}/moto-api/reset-auth", data=b"0").raise_for_status()
    print(json.dumps({"address": address, "keys": keys}), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
