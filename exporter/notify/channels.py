"""The target that a mapping of the configuration stands for."""

from exporter.config_notify import (
    AppriseSettings,
    ChannelSettings,
    DingtalkSettings,
    EmailSettings,
    FeishuSettings,
    SlackSettings,
    WebhookSettings,
    WecomSettings,
)
from exporter.notify.dingtalk import Dingtalk
from exporter.notify.email import Email
from exporter.notify.feishu import Feishu
from exporter.notify.slack import Slack
from exporter.notify.targets import Target
from exporter.notify.webhook import Webhook
from exporter.notify.wecom import Wecom


def open_target(settings: ChannelSettings) -> Target:
    """The target, which holds connections until it is closed; nothing is sent yet."""
    match settings:
        case WebhookSettings():
            return Webhook(settings)
        case EmailSettings():
            return Email(settings)
        case SlackSettings():
            return Slack(settings)
        case DingtalkSettings():
            return Dingtalk(settings)
        case WecomSettings():
            return Wecom(settings)
        case FeishuSettings():
            return Feishu(settings)
        case AppriseSettings():
            # Only here, for Apprise is an extra.
            from exporter.notify.apprise import Apprise

            return Apprise(settings)
