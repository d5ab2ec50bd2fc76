"""Send one manifest to several targets: an ordinary run for each, tied together by campaign.json."""

from bulkimg.campaign.directory import Campaign, campaign_of, find_campaign, named_campaign

__all__ = ["Campaign", "campaign_of", "find_campaign", "named_campaign"]
