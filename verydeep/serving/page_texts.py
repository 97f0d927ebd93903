"""The words of a service's page, in each of its languages; braces are filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PageTexts:
    """Every text of the page in one language."""

    language: str
    """As HTML names it."""
    lead: str
    key: str
    choose: str
    choose_hint: str
    limit_of_each: str
    limit_of_all: str
    submit: str
    stop: str
    busy: str
    busy_of: str
    stopped: str
    done: str
    results: str
    no_result: str
    class_name: str
    probability: str
    score: str
    score_note: str
    maps: str
    picture_alone: str
    picture: str
    map_of: str
    legend: str
    legend_colours: str
    positions: str
    one_position: str
    map_note: str
    about: str
    name: str
    network: str
    protocol: str
    scale: str
    scale_note: str
    mirror: str
    mirrored: str
    not_mirrored: str
    crop: str
    crop_note: str
    classes: str
    count_of_classes: str
    more_classes: str
    weights: str
    limits: str
    limits_note: str
    versions: str
    protocols: Mapping[str, str]
    """By name of a protocol."""
    refusals: Mapping[str, str]
    """By code of a refusal."""
    unusable: Mapping[str, str]
    """By kind of an unusable image."""
    retry: str
    no_connection: str
    unexpected: str
    file_too_large: str
    unreadable: str
    no_picture: str
    to_the_page: str


ENGLISH = PageTexts(
    language="en",
    lead="Which of its {count} classes does a picture show?",
    key="Key",
    choose="Choose pictures",
    choose_hint="or paste one, or drop them anywhere on this page",
    limit_of_each="JPEG, PNG, WebP or another common format, up to {mib} MiB and {pixels} pixels each.",
    limit_of_all="Up to {images} pictures at once, {mib} MiB together.",
    submit="Classify",
    stop="Stop",
    busy="Computing …",
    busy_of="Computing picture {number} of {count} …",
    stopped="Stopped.",
    done="{count} pictures are done.",
    results="Results",
    no_result="No result",
    class_name="Class",
    probability="Probability",
    score="Score",
    score_note="A score above 0 says that the picture shows the class.",
    maps="Show where the network sees a class",
    picture_alone="Picture alone",
    picture="The picture {image}",
    map_of="Where the network sees {name}: probabilities from {least} to {greatest}",
    legend="Probability at each position",
    legend_colours="colours from dark violet over green to yellow",
    positions="Positions: {rows} x {columns}.",
    one_position="At this scale the network sees the whole picture from one position, so the map has one colour.",
    map_note="The table has the probabilities of the whole picture; they are not the mean of a map.",
    about="About the model",
    name="Name",
    network="Network",
    protocol="Protocol",
    scale="Scale",
    scale_note="Q = {scales}: the shorter side in pixels, stated for a crop of 224",
    mirror="Mirror image",
    mirrored="averaged with the picture",
    not_mirrored="not used",
    crop="Crop",
    crop_note="{crop} pixels",
    classes="Classes",
    count_of_classes="All {count} classes",
    more_classes="and {count} more",
    weights="Weights (SHA-256)",
    limits="Limits",
    limits_note="{mib} MiB a request, {pixels} pixels a picture ({rescaled} at the scale above), "
    "{queue} pictures waiting, {seconds} seconds until the answer",
    versions="Versions",
    protocols={
        "dense": "dense evaluation: the network runs over the whole picture, and scores are averaged over positions",
        "crops": "multi-crop evaluation: the average over a 5 x 5 grid of crops",
        "both": "the average of dense evaluation and of a 5 x 5 grid of crops",
        "centre": "the crop in the middle of the picture",
        "features": "a linear SVM over features of the network",
    },
    refusals={
        "bad_request": "The form could not be read.",
        "bodies_full": "The service has reached its memory limit for pictures.",
        "deadline": "The picture was not computed in time. Try it again later.",
        "draining": "The service is shutting down. Use another instance.",
        "failed": "The model cannot be computed any more. The service's log says why.",
        "internal": "The service has failed. Its log says why.",
        "no_image": "No picture was chosen.",
        "not_ready": "The model is still being prepared.",
        "other_origin": "A page from another address has asked for this, and the service does not allow it.",
        "queue_full": "Too many pictures are waiting.",
        "slow_body": "The picture did not arrive in time: the connection is too slow, or was interrupted.",
        "too_large": "That is larger than the service takes. Send a smaller picture, or fewer at once.",
        "too_many_images": "That is more pictures than the service takes at once. Send fewer.",
        "unauthorised": "This key is not known. Type the key that you were given.",
        "unknown_host": "The service does not accept this host name. Use its address.",
        "unsupported_encoding": "The form was sent in an encoding that the service does not take.",
        "unsupported_type": "The form was sent as a type that the service does not take.",
        "unusable_image": "The picture cannot be used.",
    },
    unusable={
        "unreadable": "The picture cannot be read.",
        "undecodable": "This is not a picture that can be opened. Send a JPEG, PNG or WebP file.",
        "truncated": "The file ends before the picture does. Send it again, or take another copy.",
        "too large": "The picture has too many pixels, as it is or at the network's scale. "
        "Send a smaller one, or one that is less long and narrow.",
        "too elongated": "The picture is too long and narrow. Cut out the part that matters.",
    },
    retry="Try again in {seconds} s.",
    no_connection="The service cannot be reached. Is it running, and are you connected?",
    unexpected="The answer cannot be read (status {status}).",
    file_too_large="{name} is larger than {mib} MiB. Send a smaller picture.",
    unreadable="{name} cannot be read: it may be a folder, or have changed meanwhile.",
    no_picture="That was not a picture. Save the picture as a file first, or copy the picture itself.",
    to_the_page="Open the page",
)

JAPANESE = PageTexts(
    language="ja",
    lead="画像に写っているものを {count} クラスの中から判定します。",
    key="アクセスキー",
    choose="画像を選択",
    choose_hint="貼り付け、またはこのページへのドラッグ＆ドロップもできます",
    limit_of_each="JPEG、PNG、WebP などの一般的な形式に対応しています。1 枚につき {mib} MiB、{pixels} 画素までです。",
    limit_of_all="一度に {images} 枚、合計 {mib} MiB まで送信できます。",
    submit="分類する",
    stop="中止",
    busy="計算しています…",
    busy_of="{count} 枚中 {number} 枚目を計算しています…",
    stopped="中止しました。",
    done="{count} 枚の計算が終わりました。",
    results="結果",
    no_result="結果なし",
    class_name="クラス",
    probability="確率",
    score="スコア",
    score_note="スコアが 0 より大きければ、そのクラスが写っていると判定されています。",
    maps="スコアマップを表示するクラス",
    picture_alone="画像のみ",
    picture="画像 {image}",
    map_of="{name} のスコアマップ：確率 {least}～{greatest}",
    legend="各位置での確率",
    legend_colours="濃い紫から緑を経て黄色までの配色",
    positions="位置の数：{rows} × {columns}。",
    one_position="このスケールでは位置が 1 つしかないため、マップは全体が同じ色になります。",
    map_note="表の確率は画像全体に対するもので、マップの平均値ではありません。",
    about="モデルについて",
    name="名前",
    network="ネットワーク",
    protocol="評価方法",
    scale="スケール",
    scale_note="Q = {scales}（クロップ 224 に換算した短辺の画素数）",
    mirror="左右反転画像",
    mirrored="元の画像の結果と平均",
    not_mirrored="使用しない",
    crop="クロップ",
    crop_note="{crop} 画素",
    classes="クラス",
    count_of_classes="全 {count} クラス",
    more_classes="ほか {count} クラス",
    weights="重み（SHA-256）",
    limits="制限",
    limits_note="1 リクエストにつき {mib} MiB、1 枚につき {pixels} 画素（スケールを合わせた後は {rescaled} 画素）、"
    "待ち行列は {queue} 枚まで、応答は {seconds} 秒以内",
    versions="バージョン",
    protocols={
        "dense": "dense evaluation：ネットワークを画像全体に適用し、スコアを全位置で平均",
        "crops": "multi-crop evaluation：5 × 5 の格子状に切り出したクロップの平均",
        "both": "dense evaluation と 5 × 5 クロップの平均",
        "centre": "画像中央のクロップ",
        "features": "ネットワークの特徴量に対する線形 SVM",
    },
    refusals={
        "bad_request": "フォームの内容を読み取れませんでした。",
        "bodies_full": "サービスが保持できる画像の量が上限に達しています。",
        "deadline": "制限時間内に計算が終わりませんでした。しばらくしてから再度お試しください。",
        "draining": "サービスは終了処理中です。別のサービスをご利用ください。",
        "failed": "モデルを計算できなくなりました。詳細はサービスのログに記録されています。",
        "internal": "サービスでエラーが発生しました。詳細はサービスのログに記録されています。",
        "no_image": "画像が選択されていません。",
        "not_ready": "モデルを準備しています。",
        "other_origin": "許可されていない別のサイトのページからのアクセスです。",
        "queue_full": "処理待ちの画像が多すぎます。",
        "slow_body": "制限時間内に画像を受信できませんでした。接続が遅いか、途中で切断された可能性があります。",
        "too_large": "受け付けられるサイズを超えています。画像を小さくするか、枚数を減らしてください。",
        "too_many_images": "一度に送信できる枚数を超えています。枚数を減らしてください。",
        "unauthorised": "アクセスキーが正しくありません。発行されたキーを入力してください。",
        "unknown_host": "このホスト名では応答しない設定になっています。IP アドレスで接続してください。",
        "unsupported_encoding": "フォームが、対応していない符号化方式で送信されました。",
        "unsupported_type": "フォームが、対応していない形式で送信されました。",
        "unusable_image": "この画像は使用できません。",
    },
    unusable={
        "unreadable": "画像を読み取れません。",
        "undecodable": "画像として開けないファイルです。JPEG、PNG、WebP のいずれかのファイルを送信してください。",
        "truncated": "ファイルが途中で切れています。もう一度送信するか、別のコピーをお使いください。",
        "too large": "元の画像、またはスケールを合わせた後の画像の画素数が多すぎます。"
        "小さい画像、または細長くない画像を送信してください。",
        "too elongated": "画像が細長すぎます。必要な部分を切り出してください。",
    },
    retry="{seconds} 秒後に再度お試しください。",
    no_connection="サービスに接続できません。サービスが動作しているか、ネットワークに接続されているかを確認してください。",
    unexpected="応答を解釈できません（ステータス {status}）。",
    file_too_large="{name} は {mib} MiB を超えています。小さい画像を送信してください。",
    unreadable="{name} を読み取れません。フォルダーであるか、途中で変更された可能性があります。",
    no_picture="画像が含まれていません。画像をファイルとして保存するか、画像そのものをコピーしてください。",
    to_the_page="ページを開く",
)

_LANGUAGES = {texts.language: texts for texts in (ENGLISH, JAPANESE)}

_RANGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?")
"""A language range and its weight (RFC 9110, section 12.5.4)."""


def texts_for(accept_language: str) -> PageTexts:
    """Return the texts in the language that an Accept-Language prefers among those there are, else in English."""
    found = [_RANGE.fullmatch(one) for one in accept_language.split(",")]
    weights = [
        (float(one[2] or 1), _LANGUAGES[one[1].lower()]) for one in found if one and one[1].lower() in _LANGUAGES
    ]
    best = max(weights, key=lambda one: one[0], default=(0.0, ENGLISH))
    return best[1] if best[0] else ENGLISH
