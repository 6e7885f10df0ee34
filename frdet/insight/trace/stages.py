"""Names of the stages, and the meaning of each after 'lost because'."""

RESIZING, NO_ANCHOR, RPN_SCORE, ANCHOR_TOP_K = 'resizing', 'no anchor', 'RPN score', 'anchor top-k'
REGRESSION, PROPOSAL_SIZE, PROPOSAL_NMS = 'RPN regression', 'proposal size', 'proposal NMS'
PROPOSAL_TOP_K, BACKGROUND, OTHER_CLASS = 'proposal top-k', 'background', 'another class'
REFINEMENT, SCORE, CLASS_NMS, CUT = 'box refinement', 'score threshold', 'class NMS', 'detections cut'
NO_DETECTION, POOR_BOX, OUTRANKED, FOUND = 'no detection', 'poor box', 'outranked', 'found'

ABOUT = {
    RESIZING: 'the object is too small after the image was resized',
    NO_ANCHOR: 'no anchor overlaps the object enough to be trained on it',
    RPN_SCORE: 'the anchors that fit have scores below those of the best anchors of their levels',
    ANCHOR_TOP_K: 'the anchors that fit have scores below those of the best anchors of their levels',
    REGRESSION: 'the boxes that are decoded from the anchors do not fit',
    PROPOSAL_SIZE: 'the proposals that fit are too small',
    PROPOSAL_NMS: 'a proposal with a higher score suppressed those that fit',
    PROPOSAL_TOP_K: 'the proposals that fit have scores below those of the best proposals of the image',
    BACKGROUND: 'the head calls the boxes that fit background',
    OTHER_CLASS: 'the head gives the boxes that fit to another class',
    REFINEMENT: 'the refined boxes do not fit',
    SCORE: 'the score is not above the threshold',
    CLASS_NMS: 'a detection with a higher score suppressed those that fit',
    CUT: 'too many other detections have higher scores',
    OUTRANKED: 'the detection that fits was matched to another object',
    NO_DETECTION: 'no detection overlaps the object',
    POOR_BOX: 'the detections of its class overlap it too little',
    FOUND: 'a detection of its class found it',
}
OWN_STAGE = 'this stage of the detector drops the boxes that fit'
